"""Where models come from: watched, verified in a child process, loaded, warmed and swapped in."""
