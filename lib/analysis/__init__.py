"""What runs do after the fact: benchmark, study, inspection, and plots of runs."""
