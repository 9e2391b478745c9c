"""Mirrors the flags of many users at once: those of a table, a file, or a partition of Apache Spark.

rows       a row -> an identifier and traits
report     what became of rows
client     a client, as a backfill uses it
settling   waits until rows are settled
window     rows in flight: which are settled, and with what outcome
pace       keeps below Mixpanel's limit
run        ``backfill``
spark      ``partition_writer``
"""

from flagsync.bulk.report import Outcome, Report
from flagsync.bulk.run import backfill
from flagsync.bulk.spark import partition_writer

__all__ = ["Outcome", "Report", "backfill", "partition_writer"]
