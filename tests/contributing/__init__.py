"""What is written for those who change the repository is true."""
