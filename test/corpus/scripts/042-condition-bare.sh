# a bare true in condition.json is no condition
echo true > condition.json
