"""Cohorts in a PostgreSQL database that hosts share; needs ``flagsync[postgres]``.

store       PostgresStore, in all three roles
database    CohortDatabase: transactions on the tables
tables      the tables in one transaction; log_tables: those of the change log
lease       which process of all hosts may claim the entries of a change log
schema      the tables, and the queries on them
"""
