using Cbd;
using Cbd.Exports.Fuse;
using Cbd.TestPeer;

try
{
    if (args is [LoopProgram.Verb, .. var loop])
        return LoopProgram.Run(loop, Console.Out);
    if (args is ["life", .. var life] && life.Length >= 4)
        return Life.Run(life);
    if (args is ["nbd-serve", .. var rest] && rest.Length is 3 or 4)
        return NbdServe.Run(rest);
    if (args is ["attach", .. var attached] && attached.Length == 4)
        return Attach.Run(attached);
    if (args is ["recover", .. var recovered] && recovered.Length == 2)
        return Recover.Run(recovered);
    if (args is ["hostile", .. var attack] && attack.Length >= 3)
        return Hostile.Run(attack);
    Console.Error.WriteLine("usage: Cbd.TestPeer nbd-serve ADDRESS DISK QUEUES [BLOCK_BYTES] | attach KIND DISK SIZE QUEUES | recover NUMBER QUEUES | life DISK_FD SIZE QUEUES LIFE [NAME=FD...] [slow] [poison=OFFSET] [counts] [private] | hostile REGION SEED SECONDS [SPARED...]");
    return 2;
}
catch (CbdException error)
{
    Console.Error.WriteLine(error.Message);
    return 1;
}
