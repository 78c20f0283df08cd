-- Removes the ticket of a call that waits no longer. ARGV: ticket.
for n = 1, #KEYS / KEYS_PER_BUCKET do withdraw(bucket_of(n), ARGV[1]) end
