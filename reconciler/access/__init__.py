"""Who may what, of people: how they log in, what their sessions may do, and what is written down about it.

role        what somebody may do in the fleet: viewer, operator, administrator (``roles``)
member      of a team: looks at everything, and runs and changes what is that team's
session     a browser that logged in; it is known by a cookie (``sessions``)
login link  good once, for whoever opens it, made by who may do everything (``login_links``)
provider    an OpenID Connect provider, which says who somebody is and in which groups (``oidc``)
group       of the provider; the fleet file says what it may do, at each request anew
"""
