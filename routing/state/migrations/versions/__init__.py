"""The changes to the state database, each applied once; released ones are never edited."""
