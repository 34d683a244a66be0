def check(path): return 0
