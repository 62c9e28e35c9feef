"""The public edge of a bank: validate, call the bank, translate the result. Nothing is decided here.

``app``       builds the FastAPI application out of everything below.
``edge``      what one application holds: the bank, its settings, tokens, passwords, throttles.
``routes``    how a request reaches an endpoint: authority first, then strict JSON, then the model.
``problems``  every answer that is a no, as RFC 9457 documents; one table maps codes to HTTP statuses.
``holders``, ``accounts``, ``statements``, ``events``, ``transfers``, ``plans``, ``traces``, ``batches``, ``consents``,
``network``, ``operator``, ``restoration``, ``audits``  the endpoints. ``orders`` has what they are sent, as models;
              ``answers`` what they give back, in rooms of the same names; ``answering`` sends it, ``times`` writes
              times.
``headers``, ``paging``  what travels beside a body. ``tokens``, ``passwords``, ``throttle``: who may come in.
``languages``, ``portuguese``  which language a reader is answered in, and every sentence in the other one.
``docs``      the OpenAPI description, and its page without internet access.
``interbank`` the routes for other banks.
``boundary``, ``connections``, ``server``  limits on bodies, connections and time, and the way to stop.
"""
