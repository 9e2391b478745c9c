"""Sends due messages to Mixpanel, batch by batch.

sender        Sender: the thread that claims, sends and settles
bisection     Bisection: which messages of a refused batch are bad
destinations  Destinations: the health of each, and when to try again
answers       Outcome, Answer; judge: what the answer of a service means
mixpanel      Mixpanel's endpoint
http          requests that raise nothing
deadlines     the adapter that ends requests in time
failures      why a request got no reply
"""
