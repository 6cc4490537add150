"""Ports for whoever runs a process: probes and metrics by HTTP, channelz by gRPC. Off unless configured.

They ask for no credentials, so they listen on the loopback interface unless another address is named.
"""
