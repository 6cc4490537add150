DROP TABLE code_imports, code_definitions, code_files, code_snapshots, code_facts;
