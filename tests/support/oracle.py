"""An accuracy matrix whose metrics were worked out by hand."""

ORACLE = [[40, 68, 20, 30], [70, 66, 18, 34], [74, 60, 26, 30], [64, 50, 58, 42], [60, 54, 64, 80]]


PRIOR = [[90, 60], [88, 61], [84, 57], [80, 58], [82, 55]]
