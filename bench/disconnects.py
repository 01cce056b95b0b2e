def run(t): yield from ()
