"""The original's command line (`darknet detector test ...`): its arguments, output lines and files."""
