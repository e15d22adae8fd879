"""What a program uses: `Client`, on which the command line is built too."""
