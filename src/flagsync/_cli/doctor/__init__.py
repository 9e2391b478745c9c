"""``flagsync doctor``: checks a configuration, and says what to do.

check      the result of a check
facts      what the checks look at, asked once: the environment, and both services
flagsmith  checks of the key, the environment document and its flags
mixpanel   checks of the host, the token and the clock
system     checks of the options, proxies, certificates and the outbox
command    the command, which runs the checks and prints them
"""
