"""SQLite files that the processes of a host share.

sqlite   how a file is made, checked and opened
shared   SharedFile: one connection of one process, closed before a fork
lease    FileLease: which process sends
"""
