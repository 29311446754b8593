-- The database and its owner. The tables are made by "rollcall migrate up".
CREATE DATABASE IF NOT EXISTS rollcall;
CREATE USER IF NOT EXISTS rollcall;
ALTER DATABASE rollcall OWNER TO rollcall;
