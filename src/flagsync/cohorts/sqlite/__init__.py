"""Cohorts in a file that the processes of a host share.

store       SQLiteStore, in all three roles
file        CohortFile: in each process, one connection that reads and one that writes
tables      the tables in one transaction; log_tables: those of the change log
lease       which process may claim the entries of a change log
schema      the SQL of the tables
"""
