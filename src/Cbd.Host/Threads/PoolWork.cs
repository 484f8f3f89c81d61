using Cbd.Memory;

namespace Cbd.Host.Threads;

/// <summary>Work that threads leave to others, because they must go on whatever it does.</summary>
internal static class PoolWork
{
    /// <summary>Looks at disks and exports that run at a time: one that hangs in its file system must not keep all threads of the pool.</summary>
    private const int MostLooks = 2;

    private static readonly Lock s_gate = new();
    private static readonly Queue<Action> s_waiting = new();
    private static int s_lookers;

    /// <summary>Does it on a thread of its own; where none can be had, one of the pool's does it when it is free.</summary>
    /// <param name="work">Must not throw.</param>
    public static void Queue(Action work)
    {
        if (!NeededThread.TryBegin(new Thread(() => work()) { IsBackground = true, Name = "cbd-work" }))
            QueueToPool(work);
    }

    /// <summary>Queues a look behind those that wait already.</summary>
    /// <param name="look">Must not throw; may hang.</param>
    public static void QueueLook(Action look)
    {
        lock (s_gate)
        {
            s_waiting.Enqueue(look);
            if (s_lookers == MostLooks)
                return;
            s_lookers++;
        }

        QueueToPool(RunLooks);
    }

    private static void QueueToPool(Action work)
    {
        try
        {
            ThreadPool.UnsafeQueueUserWorkItem(static work => work(), work, preferLocal: false);
        }
        catch (OutOfMemoryException)
        {
            // It is in the queue; what failed is another thread for it.
        }
    }

    private static void RunLooks()
    {
        while (true)
        {
            Action? look;
            lock (s_gate)
            {
                if (!s_waiting.TryDequeue(out look))
                {
                    s_lookers--;
                    return;
                }
            }

            look();
        }
    }
}
