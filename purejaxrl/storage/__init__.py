"""Files of runs on disk: run folders, checkpoints, CSV files and videos."""
