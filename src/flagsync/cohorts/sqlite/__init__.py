"""Cohorts in a file that the processes of a host share.

store       SQLiteStore, in all three roles
change_log  what an environment has not been told yet
file        the file in one process: one connection that reads, one that writes
catalog     the known cohorts and their traits
tables      the tables in one transaction
schema      their SQL
"""
