"""The receiver of Mixpanel's cohort webhook.

app          CohortWebhook: decides who may call and what is stored; the WSGI application
asgi         the ASGI application around it
answers      requests and responses, as both have them
refusals     why calls are refused, and what to do about it
"""
