"""Pending messages: a compacted log that keeps the latest message of each key.

contract    Message, Destination, Claim; the outbox as the encoder, the sender and the statistics see it
memory      MemoryOutbox: of one process, and lost with it; queue holds what waits for one destination
durable     DurableOutbox: a memory outbox in front of a Backend that processes share; its parts are options, schedule,
            gathering, outage, sent and accounting
backend     Backend, the contract of a shared store
sqlite      SQLiteBackend, the backend in a file; change is one transaction, rows are what it reads and writes, schema
            has the tables and queries
file        opens such a file for a client or an operator
"""
