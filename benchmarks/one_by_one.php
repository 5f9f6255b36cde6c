<?php
// As MMOLove's PHP kit sends: one event, one curl handle, one connection.
// Usage: php one_by_one.php ENDPOINT CA-FILE SECRET FILE-OF-BODIES

[, $endpoint, $ca, $secret, $file] = $argv;
$bodies = file($file, FILE_IGNORE_NEW_LINES);
echo "ready\n";
fgets(STDIN);
$before = getrusage();
foreach ($bodies as $body) {
    $moment = time();
    $mac = hash_hmac('sha256', "$moment.$body", $secret);
    $handle = curl_init($endpoint);
    curl_setopt_array($handle, [
        CURLOPT_POST => true,
        CURLOPT_POSTFIELDS => $body,
        CURLOPT_HTTPHEADER => ['Content-Type: application/json', "X-MMOLove-Signature: t=$moment,v1=sha256=$mac"],
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_TIMEOUT => 15,
        CURLOPT_CAINFO => $ca,
    ]);
    $answer = json_decode((string) curl_exec($handle), true);
    curl_close($handle);
    if (!($answer['ok'] ?? false)) {
        fwrite(STDERR, "refused\n");
        exit(1);
    }
}
$after = getrusage();
$cpu = 0.0;
foreach (['utime', 'stime'] as $kind) {
    $cpu += $after["ru_$kind.tv_sec"] - $before["ru_$kind.tv_sec"];
    $cpu += ($after["ru_$kind.tv_usec"] - $before["ru_$kind.tv_usec"]) / 1e6;
}
echo json_encode(['cpu' => $cpu]), "\n";
