# The longest wait of a test is 60 s, on machines that are ten times slower; several may follow one another.
# What is logged is shown with a test that fails: many kill a launcher, which is worth a warning.
ExUnit.start(timeout: 300_000, capture_log: true, assert_receive_timeout: 60_000)
