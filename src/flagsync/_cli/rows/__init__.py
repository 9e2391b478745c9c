"""The rows of a file or of stdin.

source        what a file is, by its name and first bytes
csv_rows      CSV, with any of the usual delimiters
json_rows     a JSON object a line
parquet_rows  Parquet; it needs the extra flagsync[parquet]
columns       names of columns, and the types that the user declares for them
"""
