using Cbd.Memory;
using Cbd.TestPeer;

try
{
    if (args is ["nbd-serve", .. var rest] && rest.Length is 3 or 4)
        return NbdServe.Run(rest);
    Console.Error.WriteLine("usage: Cbd.TestPeer nbd-serve ADDRESS DISK QUEUES [BLOCK_BYTES]");
    return 2;
}
catch (CbdException error)
{
    Console.Error.WriteLine(error.Message);
    return 1;
}
