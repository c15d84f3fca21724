"""What everything stands on: errors, configuration, whole files, text and tables. Knows no torch."""
