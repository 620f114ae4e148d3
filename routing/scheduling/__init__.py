"""Which replica takes a request: filters say who may, scorers how good each is, the profile picks."""
