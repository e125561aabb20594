LIMIT = 0.5
GOOD, BAD = "good", "bad"
