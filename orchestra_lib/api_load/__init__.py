"""What the memory API bears: latency at stated rates, where it saturates, how it starts cold, how it sheds load."""
