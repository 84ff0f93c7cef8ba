// Makes the three members one replica set, and ends once there is a primary. Harmless to repeat: what is made stays as it is.
// mongosh --quiet "mongodb://mongo1:27017/?directConnection=true" mongo-init.js

const members = ["mongo1:27017", "mongo2:27017", "mongo3:27017"];
const NOT_YET_INITIALIZED = 94;
const ALREADY_INITIALIZED = 23;

function isMade() {
  try {
    return rs.status().ok === 1;
  } catch (error) {
    if (error.code === NOT_YET_INITIALIZED) return false;
    throw error;
  }
}

if (!isMade()) {
  try {
    rs.initiate({ _id: "rs0", members: members.map((host, _id) => ({ _id, host })) });
  } catch (error) {
    // Somebody else was faster.
    if (error.code !== ALREADY_INITIALIZED) throw error;
  }
}

const deadline = Date.now() + 60_000;
let primary;
while (!(primary = db.hello().primary)) {
  if (Date.now() > deadline) throw new Error("no primary within 60 s");
  sleep(500);
}
print(`rs0: the primary is ${primary}`);
