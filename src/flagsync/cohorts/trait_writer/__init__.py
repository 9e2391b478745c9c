"""Cohorts as stored traits, for identities that are evaluated elsewhere.

writer       TraitWriter: how it starts and ends
change_list  ChangeList: the change log of a store, as a sender sees it
pace         when changes are written, and how many at a time
flagsmith    FlagsmithTraits: Flagsmith's API for stored traits
"""
