"""Cohorts as stored traits, for identities that are evaluated elsewhere.

writer       TraitWriter: how it starts and ends; registration: one for each environment of a store
change_list  ChangeList: the change log of an environment, as a sender sees it
pace         when changes are written, and when again
refusals     Refusals: the identities that Flagsmith has refused
requests     the requests that carry changes, as ChangeList sees them
flagsmith    FlagsmithTraits: writes them, and learns from the answers
batch_size   how many changes go into one request
singles      one request for each identity, where there is no bulk endpoint
service      what Flagsmith's API takes, and how it answers
"""
