"""How well is a replica, and how much may it be given? By its faults, its first tokens and its pace."""
