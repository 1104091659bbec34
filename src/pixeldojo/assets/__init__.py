"""Assets: the files jobs make, kept until they expire, and the signed URLs that lead to them."""
