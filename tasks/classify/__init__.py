"""Classification: texts or pictures, and the label of each."""
