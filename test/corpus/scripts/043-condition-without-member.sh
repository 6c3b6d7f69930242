# an object without "condition" is no condition
echo '{"result": true}' > condition.json
