# The longest wait of a test is 60 s, on machines that are ten times slower; several may follow one another.
ExUnit.start(timeout: 300_000)
