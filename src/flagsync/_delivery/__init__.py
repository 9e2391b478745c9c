"""Sending: what is due goes to Mixpanel, batch by batch.

sender        Sender: the thread that claims, sends and settles
bisection     Bisection: which messages of a refused batch are bad
destinations  Destinations: the health of each, and when to try again
answers       Outcome, Answer; judge, the table of what answers mean
mixpanel      Mixpanel's endpoint;  http  requests that raise nothing;  deadlines  and end in time
failures      why a request got no reply
"""
