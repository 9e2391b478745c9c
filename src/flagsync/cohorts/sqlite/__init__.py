"""Cohorts in a file that the processes of a host share.

store       SQLiteStore, in all three roles
change_log  SQLiteChangeLog: the changes that an environment has not been told
file        CohortFile: in each process, one connection that reads and one that writes
catalog     the known cohorts and their traits
tables      the tables in one transaction
schema      the SQL of the tables
"""
