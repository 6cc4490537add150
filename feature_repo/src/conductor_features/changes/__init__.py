"""What a change of code touches: diffs, what paths tell, and which tests a repository's imports lead to.

Pure: the warehouse builds the graph by these types, the server asks it, and neither needs the other.
"""
