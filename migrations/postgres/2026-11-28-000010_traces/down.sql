DROP TABLE run_traces;
