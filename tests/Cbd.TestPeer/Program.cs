using Cbd;
using Cbd.TestPeer;

try
{
    if (args is ["nbd-serve", .. var rest] && rest.Length is 3 or 4)
        return NbdServe.Run(rest);
    if (args is ["attach", .. var attached] && attached.Length == 4)
        return Attach.Run(attached);
    if (args is ["hostile", .. var attack] && attack.Length >= 3)
        return Hostile.Run(attack);
    Console.Error.WriteLine("usage: Cbd.TestPeer nbd-serve ADDRESS DISK QUEUES [BLOCK_BYTES] | attach KIND DISK SIZE QUEUES | hostile REGION SEED SECONDS [SPARED...]");
    return 2;
}
catch (CbdException error)
{
    Console.Error.WriteLine(error.Message);
    return 1;
}
