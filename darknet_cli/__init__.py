"""The original's command line (`darknet detector test ...`): its words, printed lines and files on top of the other packages."""
