"""What has been learned, looked at: policies at play, statistics, plots, comparisons."""
