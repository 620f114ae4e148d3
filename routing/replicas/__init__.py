"""Where are the replicas, how is each reached, and is it ready?"""
