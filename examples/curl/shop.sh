# Appends an event, sends a command, reads the outcome and the events: FOLDSTREAM=http://… sh shop.sh
json='Content-Type: application/json'
invoice=invoice-$$-$(date +%s) order=order-$$-$(date +%s)

# An append, under the condition that the stream is new. The key makes it safe to send again.
curl -s "$FOLDSTREAM/v1/streams/invoice/$invoice/events" -H "$json" -H "Idempotency-Key: issue-$invoice" -d '{
  "expectedVersion": "none",
  "events": [{"type": "invoice.Issued", "data": {"customer": "c-7", "total": 12900, "dueAt": "2026-12-31T00:00:00Z"}}]}'

# A conflict: the stream is not at version 7. The answer says where it is.
curl -s "$FOLDSTREAM/v1/streams/invoice/$invoice/events" -H "$json" -d '{
  "expectedVersion": 7, "events": [{"type": "invoice.Paid", "data": {"amount": 12900}}]}'

# A command, decided by the rules of the category; sent twice, it counts once; its outcome can be looked up.
place='{"type": "order.Place", "data": {"customer": "c-7", "totalCents": 12900}}'
curl -s "$FOLDSTREAM/v1/commands/order/$order" -H "$json" -H "Idempotency-Key: place-$order" -d "$place"
curl -s "$FOLDSTREAM/v1/commands/order/$order" -H "$json" -H "Idempotency-Key: place-$order" -d "$place"
curl -s "$FOLDSTREAM/v1/streams/order/$order/commands/place-$order"

# The events of one stream, and its state as the rules see it.
curl -s "$FOLDSTREAM/v1/streams/invoice/$invoice/events"
curl -s "$FOLDSTREAM/v1/streams/order/$order/state"
