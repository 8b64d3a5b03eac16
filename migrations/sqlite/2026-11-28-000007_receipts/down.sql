DROP TABLE receipt_keys;
DROP TABLE run_receipts;
